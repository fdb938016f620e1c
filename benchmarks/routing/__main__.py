from benchmarks.routing.measure import main

main()
