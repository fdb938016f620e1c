from benchmarks.dynamic_ema.cost import main

main()
