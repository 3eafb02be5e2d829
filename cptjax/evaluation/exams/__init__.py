"""Multiple-choice exams: read and checked, asked in letter and cloze form, scored, compared."""
