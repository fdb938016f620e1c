from benchmarks.tuning_speed.measure import main

main()
