"""The miniature world: drawn scenes, their captions, and an exact checker of pictures against prompts."""
