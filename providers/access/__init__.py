"""Keys: what clients present to the router and the router to its targets."""
