hosts web {
  host "web1" {
    address = 192.0.2.1
    vars { mode = 755 }
  }
  host "web2" {
    address = 192.0.2.2
    vars { mode = 0755 }
  }
}

play "web" on hosts.web {
  directory "/srv/b" { mode = mode }
}
