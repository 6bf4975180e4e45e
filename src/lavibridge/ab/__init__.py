"""The blind user study: two runs' pictures side by side, people's votes, and what the votes say."""
