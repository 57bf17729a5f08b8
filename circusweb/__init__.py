"""What Circus's `httpd = True` imports (circus 0.19, arbiter.py): the console of circus-failover."""
