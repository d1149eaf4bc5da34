#: --set open=yes --set names=one --set limits=5 --set title=[1,2] --set mode=0888 --set shown=010
vars {
  open   = true
  names  = ["a", "b"]
  limits = { a = 1 }
  title  = "t"
  mode   = 0644
  shown  = 0644
}

hosts web {
  host "web1"
}

play "web" on hosts.web {
  when open {
    for name in names {
      file "/srv/{{ name }}" { content = "{{ title }} {{ limits }} {{ shown }}"  mode = mode }
    }
  }
}
