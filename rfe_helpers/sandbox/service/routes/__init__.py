"""What each route of the API does, one file for each kind of thing."""
