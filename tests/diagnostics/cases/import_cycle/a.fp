import "b.fp"

vars { a = 1 }
