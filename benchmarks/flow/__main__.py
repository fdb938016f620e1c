from benchmarks.flow.run import main

if __name__ == "__main__":  # processes that read packages are started anew and import this module
    main()
