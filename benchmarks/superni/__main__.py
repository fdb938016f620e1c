from benchmarks.superni.run import main

if __name__ == "__main__":
    main()
