"""From requests to pictures: a bounded queue, and a thread that draws many of its pictures at a time."""
