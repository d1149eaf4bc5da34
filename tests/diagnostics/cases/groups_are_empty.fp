vars { names = [] }

hosts web {
  for name in names {
    host "{{ name }}"
  }
}

play "web" on hosts.web {
  directory "/srv/web"
}
