hosts web {
  host "localhost" { connection = local }
}

play "web" on hosts.web {
  vars { a = 1 }
  copy "/srv/a" { src = "a" }
  apt "nginx"
  set_fact { a = 1 }
  debug "x"
  command ["true"] { register = "r"  loop = [1]  ignore_errors = true  serial = 2 }
  docker_container "web"
}
