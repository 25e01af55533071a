//! One tiny process per pod: holds its namespaces and pipes, reaps, writes facts.
