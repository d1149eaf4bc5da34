hosts web {
  host "web1" { vars { folder = "a" } }
  host "web2"
}

play "web" on hosts.web {
  directory "/srv/{{ folder }}"
}
