hosts web {
  host "web1" { adress = 10.0.0.1 }
}

play "web" on hosts.web {
  directory "/srv/a"
}
