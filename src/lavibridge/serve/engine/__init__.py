"""From wishes to pictures: a bounded queue, and a thread that draws what waits in it, many at a time."""
