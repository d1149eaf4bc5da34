vars { release = 2 }

hosts docker {
  host "lab1" { address = 192.0.2.1  user = "admin" }
  host "lab2" {
    address = 192.0.2.2
    vars { release = 3 }
  }
}

hosts spare {
  host "lab2"
}
