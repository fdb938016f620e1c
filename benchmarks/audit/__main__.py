from benchmarks.audit.measure import main

main()
