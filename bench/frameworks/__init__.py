"""One file per framework, each with CONFIGS, environment(config), versions() and run(task, config, threads, quick)."""
