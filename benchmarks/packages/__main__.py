from benchmarks.packages.fuzz import main

main()
