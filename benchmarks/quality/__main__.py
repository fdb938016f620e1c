from benchmarks.quality.planted import main

main()
