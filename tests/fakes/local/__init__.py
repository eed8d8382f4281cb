"""The platform `local` needs no stand-in: its cases of `make chaos` watch real run folders."""
