"""The file of a cluster that may grow."""


def cluster_file(spot):
    """The file as `ray up` completes it, with a head of 1 CPU, and workers ``spot``.

    Its provider is a fake: a test starts the nodes itself.
    """
    return {
        "cluster_name": "test",
        "max_workers": 8,
        "provider": {"type": "fake_multinode"},
        "auth": {}, "docker": {}, "file_mounts": {}, "file_mounts_sync_continuously": False,
        "cluster_synced_files": [], "rsync_exclude": [], "rsync_filter": [],
        "initialization_commands": [], "setup_commands": [], "head_setup_commands": [],
        "worker_setup_commands": [], "head_start_ray_commands": [], "worker_start_ray_commands": [],
        "idle_timeout_minutes": 5, "upscaling_speed": 1.0, "head_node_type": "head",
        "available_node_types": {
            "head": {"resources": {"CPU": 1}, "node_config": {}, "max_workers": 0},
            "spot": spot,
        },
    }  # fmt: skip
