"""What tools/ci/record.py records plans with: a platform that is a file, and small programs."""
