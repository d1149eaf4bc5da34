import "a.fp"

vars { b = 1 }
