"""`failoverctl init`: how an operator with real accounts gets a fleet."""
