hosts web {
  host "localhost" { connection = local }
}

play "web" on hosts.web {
  file "/srv/a" { content = "x"  source = "contradictory_parameters.fp" }
  file "/srv/b" { state = absent  mode = 0644 }
  link "/srv/c" { state = absent  to = "/x" }
}
