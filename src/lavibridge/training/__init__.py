"""Training: the loop, what it is fed, what it keeps, and what happens once in a while."""
