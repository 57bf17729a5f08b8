"""The web console: a front end like failoverctl. It asks circusd by its verbs and shows what is published."""
