from benchmarks.gate.simulate import main

main()
