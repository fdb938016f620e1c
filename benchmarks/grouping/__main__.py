from benchmarks.grouping.calibrate import main

main()
