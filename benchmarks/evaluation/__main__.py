from benchmarks.evaluation.cost import main

main()
