"""What the containers run first: `images.start` and `images.health`. The rest of the folder is for `docker build`."""
