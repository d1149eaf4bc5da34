hosts web {
  host "localhost" { connection = local }
}

vars { list = [1, 2] }

play "web" on hosts.web {
  directory "/srv/{{ list[5] }}"
  directory "/srv/{{ list.first }}"
  directory "/srv/{{ 1 + "a" }}"
  directory "/srv/{{ 10 / 0 }}"
  directory "/srv/{{ list["a"] }}"
  directory "/srv/{{ "x" | octets(1) }}"
}
