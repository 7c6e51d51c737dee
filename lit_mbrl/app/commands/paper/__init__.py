"""`python -m lit_mbrl paper`: a table or a figure of a paper, from its runs to a page with the paper's own numbers."""
