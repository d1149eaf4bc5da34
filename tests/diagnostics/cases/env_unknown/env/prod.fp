vars { size = 1 }
