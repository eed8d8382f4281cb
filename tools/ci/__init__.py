"""What the workflows of .github/workflows call; each step also runs on a developer's machine."""
