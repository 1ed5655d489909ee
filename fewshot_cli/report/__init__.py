"""What a person looks at: tables now, plots and pages later."""
