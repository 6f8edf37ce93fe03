"""Light curves in six bands, a module per family: each is a function of the source's numbers and of time alone."""
