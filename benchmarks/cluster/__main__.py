from benchmarks.cluster.inbox import main

main()
