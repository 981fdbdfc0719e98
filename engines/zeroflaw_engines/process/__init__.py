"""What holds for a whole process: its cores, its forks, its telemetry, how long things live."""
