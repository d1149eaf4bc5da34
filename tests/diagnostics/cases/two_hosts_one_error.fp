hosts web {
  host "web1" { address = 192.0.2.1 }
  host "web2" { address = 192.0.2.2 }
}

play "web" on hosts.web {
  directory "/srv/{{ host.name | octets(1) }}"
  directory "/srv/b" { mode = 644 }
}
