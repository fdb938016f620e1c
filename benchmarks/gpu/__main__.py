from benchmarks.gpu.measure import main

main()
