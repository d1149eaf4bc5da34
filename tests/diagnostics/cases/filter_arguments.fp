hosts web {
  host "localhost" { connection = local }
}

play "web" on hosts.web {
  directory "/srv/{{ "a" | replace("a") }}"
  directory "/srv/{{ "a" | upper("a", "b") }}"
  when "a" is startingwith { directory "/srv/c" }
}
