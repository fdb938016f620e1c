from benchmarks.long_stream.run import main

main()
