"""`make up`, `make preview`, `make down`: the local stack, also after a run that was killed."""
