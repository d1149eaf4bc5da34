<?php
// The front page of every site in the playground and the tests: who answers, and for which site.
header('Content-Type: text/plain; charset=utf-8');
header('Cache-Control: no-store');
printf("%s\n", gethostname());
