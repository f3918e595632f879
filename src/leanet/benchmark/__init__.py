"""Many methods on many data sets, cell by cell: one method, one data set, one fold, one seed."""
