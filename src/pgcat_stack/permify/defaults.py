"""What Permify takes where its configuration is silent (its `config.go`, pgxpool). Times are seconds."""

HTTP_PORT, GRPC_PORT, PEERS_PORT, PROFILER_PORT = 3476, 3478, 5000, 6060
LIFETIME_SECONDS, IDLE_SECONDS = 300.0, 60.0
MAX_OPEN_CONNECTIONS = 20
HEALTH_CHECK_SECONDS = 60.0
"""What `health_check_period: 0` means."""
JITTER_SHARE = 0.2
"""The share of the lifetime that `max_connection_lifetime_jitter: 0` means."""
